"""Training of one episode."""
