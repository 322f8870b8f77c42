"""`python -m tl_toolkit`: the command line, where `tltool` is not on the path."""

from tl_toolkit.cli.main import main

if __name__ == "__main__":
    main()
