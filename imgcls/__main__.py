"""`python -m imgcls` equals `imgcls`."""

from imgcls.cli import main

if __name__ == "__main__":
    main()
