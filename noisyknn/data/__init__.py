"""Tables, images and synthetic noise."""
