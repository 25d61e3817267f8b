"""`python -m lcc`, which is how torchrun starts it."""

from lcc.cli import main

main()
