#!/bin/sh
# Builds learnd_edge against the TensorFlow that a Python environment holds: headers and libraries are in its wheel.
#   sh build.sh OUTPUT [PYTHON]        CXX names the compiler (g++; any that speaks C++17 and uses libstdc++)
set -eu
output=$1
python=${2:-python3}
here=$(cd "$(dirname "$0")" && pwd)
tensorflow=$("$python" -c 'import importlib.util as u; print(u.find_spec("tensorflow").submodule_search_locations[0])')
# --no-as-needed: the sessions register themselves when the library is loaded, and nothing refers to them by name.
exec "${CXX:-g++}" -std=c++17 -O2 -w -D_GLIBCXX_USE_CXX11_ABI=1 -DEIGEN_MAX_ALIGN_BYTES=64 \
    "-I$tensorflow/include" "$here/learnd_edge.cc" -o "$output" \
    "-L$tensorflow" -Wl,--no-as-needed -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2 "-Wl,-rpath,$tensorflow"
