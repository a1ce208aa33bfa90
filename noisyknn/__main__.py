"""``python -m noisyknn``: the command line of this very environment."""

from noisyknn.cli import main

main()
