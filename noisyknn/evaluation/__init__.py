"""How good a correction was."""
