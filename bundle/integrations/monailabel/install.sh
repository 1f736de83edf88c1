#!/bin/sh
# Creates the environment of a MONAI Label server that can run this bundle: install.sh FOLDER
set -eu
here=$(dirname "$0")
python=${PYTHON:-python3}
"$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" || {
    echo "error: $python is $("$python" -V 2>&1); MONAI Label's requirements need Python 3.11 or newer: set PYTHON" >&2
    exit 1
}
"$python" -m venv "$1"
"$1/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
# Both declare older versions of the bundle's requirements, but work with the newer ones.
"$1/bin/python" -m pip install --quiet --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
# pydicom 3 has moved names that pydicom-seg imports from here.
pydicom=$("$1/bin/python" -c "import pydicom; print(pydicom.__path__[0])")
echo "from pydicom.uid import SegmentationStorage" > "$pydicom/_storage_sopclass_uids.py"
# A torch from another index may not load the extension of PyPI's torchvision.
"$1/bin/python" -c "import torchvision" 2> /dev/null || "$1/bin/python" -m pip install --quiet "torch===2.13.0"
"$1/bin/python" -c "import monailabel.app" > /dev/null
