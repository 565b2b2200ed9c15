#!/usr/bin/env bash
# Builds programs of llama.cpp (0c1e570) from the source package of llama-cpp-python.
#
# usage: scripts/build_llama_cpp.sh FOLDER TARGET…    FOLDER/build/bin receives llama-server, llama-perplexity, …
#
# Needs Python 3.10 with venv, a C++ compiler and a package index. FOLDER/venv holds cmake, ninja and the packages
# with which the scripts beside this one make checkpoints. What is there already stays.
set -euo pipefail

folder=${1:?usage: scripts/build_llama_cpp.sh FOLDER TARGET…}
folder=$(mkdir -p "$folder" && cd "$folder" && pwd)
shift
version=0.3.36
say() { echo "build_llama_cpp: $1" >&2; }

if [ ! -x "$folder/venv/bin/cmake" ]; then
    say "installs cmake, ninja, gguf and sentencepiece"
    python3 -m venv "$folder/venv"
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check cmake ninja gguf numpy sentencepiece protobuf \
        scikit-build-core
fi
PATH=$folder/venv/bin:$PATH

# The server's page for browsers would be fetched while it is built, and is left out.
source=$folder/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -f "$folder/build/build.ninja" ]; then
    [ -d "$source" ] || {
        pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary llama-cpp-python \
            --dest "$folder" "llama-cpp-python==$version"
        tar -xzf "$folder/llama_cpp_python-$version.tar.gz" -C "$folder"
    }
    cmake -S "$source" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_OPENSSL=OFF >"$folder/cmake.log"
fi
for target; do
    [ -x "$folder/build/bin/$target" ] || say "builds $target"
    cmake --build "$folder/build" --target "$target" >"$folder/build.log" || { tail -n 20 "$folder/build.log" >&2; exit 1; }
done
