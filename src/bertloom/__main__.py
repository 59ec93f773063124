"""`python -m bertloom`."""

from bertloom.cli import main

if __name__ == "__main__":
    main()
