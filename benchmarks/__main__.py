"""`python -m benchmarks`; see `benchmarks.command`."""

if __name__ == "__main__":
    # Here and not above: each contestant's process imports this module too, and is to import only what it needs.
    from benchmarks.command import main

    main()
