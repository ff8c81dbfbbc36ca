"""`python -m nas`: the same as the command `nas`."""

from nas.commands.main import main

if __name__ == "__main__":
    main()
