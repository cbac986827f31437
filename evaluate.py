"""The door to the test split: final scores of a run.

    python evaluate.py RUN [--json]
    python evaluate.py --run-id RUN [--json]

RUN is a run's id, six or more of its first characters, `last` or `best`. The same as `imgcls evaluate`;
everything happens in imgcls/evaluation/judge.py.
"""

import importlib.util
import sys


def main() -> None:
    """Hands over to the package, or says how to enter its environment."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "mlflow", "typer", "pydantic")):
        sys.stderr.write(
            "evaluate.py needs the project's environment: run `make setup` once, then `. .venv/bin/activate`\n"
        )
        sys.exit(2)
    from imgcls.cli import main as imgcls

    sys.argv[1:1] = ["evaluate"]
    imgcls()


if __name__ == "__main__":
    main()
