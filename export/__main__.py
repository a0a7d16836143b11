"""`python -m keras_muon.export` is `keras-muon`."""

import sys

from keras_muon.export.cli import main

if __name__ == "__main__":
    sys.exit(main())
