"""`python -m benchmarks.replay`; see `benchmarks.replay.command`."""

from benchmarks.replay.command import main

if __name__ == "__main__":
    main()
