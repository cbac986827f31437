"""`python -m torture`; see `torture.command`."""

from torture.command import main

if __name__ == "__main__":
    main()
