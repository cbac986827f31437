"""From a trained run to an answer over HTTP, by the commands that the verb prints, in a shell."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from tests.data.make import picture, write
from tests.inference.serving import Served, elsewhere
from tests.shell import typed


def imgcls(*arguments):
    done = typed(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_printed_commands_serve_the_run_and_ask_for_a_photograph(project, tmp_path):
    root = project.root
    for split, num in (("train", 6), ("val", 4), ("test", 2)):
        for label, kind in enumerate(("a cat", "dog")):
            for i in range(num):
                path = root / "images" / split / kind / f"{i}.jpg"
                write(path, picture(1000 * len(split) + 100 * label + i, (60 + 10 * i, 50)), quality=90)
    settings = (
        "data.source=folder",
        "data.path=images",
        "data.image_size=16",
        "train.epochs=1",
        "train.warmup_epochs=0",
    )
    imgcls("train", "tiny", *(part for setting in settings for part in ("--set", setting)))
    said = imgcls("register", "last", "--alias", "champion")
    assert "Registered version 1 of tiny" in said and "8 val images, largest difference" in said
    serve, ask = (re.search(rf"^{title} +(.*)$", said, re.MULTILINE)[1] for title in ("Serve", "Ask"))
    assert serve == "mlflow models serve -m models:/tiny@champion --env-manager local"
    facts = json.loads(imgcls("register", "last", "--alias", "champion", "--json"))
    assert facts["version"] == 1 and not facts["is_new"] and facts["uri"] == "models:/tiny@champion"

    (run,) = project.runs(kind="train")
    recorded = pd.read_csv(run.folder / "predictions" / "val.csv")
    served = Served(facts["uri"], root, elsewhere(tmp_path))
    try:
        for row in recorded.to_dict("records"):
            shutil.copy(root / "images" / row["image"], root / "photo.jpg")
            command = ask.replace("http://127.0.0.1:5000", served.url)
            answer = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=True).stdout
            (predicted,) = json.loads(answer)["predictions"]
            assert predicted.pop("prediction") == row["prediction"]
            own = {name.replace("prob/", "calibrated/"): value for name, value in predicted.items()}
            assert own == pytest.approx({name: row[name] for name in own}, abs=1e-5) and len(own) == 2
    finally:
        served.stop()
