#!/bin/sh
# Take from a virtual environment what Nameward never imports: tests, the typed models of Kubernetes' client and
# its second, asynchronous client with what that alone needs. tests/image starts everything from what is left.
#   trim.sh VENV
set -eu

/build/bin/pip --quiet --python "$1/bin/python" uninstall --yes --root-user-action=ignore \
    aiohttp aiohttp-retry aiosignal aiohappyeyeballs frozenlist multidict propcache yarl
cd "$1"/lib/python3*/site-packages
rm -rf kubernetes/aio kubernetes/client/api kubernetes/client/models
# The client imports this package by name, and looks into it only for objects that we do not ask for.
mkdir kubernetes/client/models
: >kubernetes/client/models/__init__.py
find . -type d \( -name test -o -name tests \) -prune -exec rm -rf {} +
