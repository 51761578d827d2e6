"""`python -m toxtrail`: the command, for those who start processes themselves."""

from toxtrail.cli import main

if __name__ == "__main__":
    main()
