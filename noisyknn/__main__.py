"""``python -m noisyknn``: the command line in this environment."""

from noisyknn.cli import main

main()
