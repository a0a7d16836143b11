"""`keras-muon verify`: what a file is, with the check list."""

import argparse
import sys
from pathlib import Path

from keras_muon.export.examination import examine
from keras_muon.export.reading import Verdict
from keras_muon.export.report import print_checks, print_json


def command(arguments: argparse.Namespace) -> bool:
    """Examine a file and print what was found.

    Args:
        arguments: As parsed.

    Returns:
        Whether the file is good.
    """
    verdict, reason, checks = examine(Path(arguments.file), arguments.verify)
    if arguments.json:
        about = {"file": arguments.file, "verdict": verdict.value, "reason": reason}
        print_json(about, checks, sys.stdout)
    else:
        title = f"{arguments.file}: {verdict.value}. {reason}"
        if checks:
            print_checks(title, checks, sys.stdout)
        else:
            print(title)
    return verdict is Verdict.GOOD
