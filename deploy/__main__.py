"""`python -m deploy`: the same as `bec-server`."""

from deploy.cli import main

if __name__ == "__main__":
    main()
