#!/usr/bin/env bash
# A 64-bit Arm Debian with Python, lcc's runtime and TVM's, in the folder .aarch64: what
# tests/targets/test_tvm_aarch64.py runs under qemu-user. Needs apt-get (as root) and pip, no Arm.
#
#   bash docs/measure/aarch64.sh && pytest tests/targets/test_tvm_aarch64.py
set -euo pipefail
cd "$(dirname "$0")/../.."
place="$PWD/.aarch64"
rm -rf "$place"
mkdir -p "$place"/{debs,root} "$place"/apt/{lists,archives}/partial

apt-get install -y -q qemu-user g++-aarch64-linux-gnu
arm=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$place/apt"
  -o Dir::State::Lists="$place/apt/lists" -o Dir::State::status=/dev/null
  -o Dir::Cache::archives="$place/apt/archives" -o APT::Sandbox::User=root)
apt-get "${arm[@]}" -q update
python=python3.11
(cd "$place/debs" && apt-get "${arm[@]}" -q download libc6 libgcc-s1 libstdc++6 \
  $python lib$python-stdlib lib$python-minimal $python-minimal zlib1g libexpat1 libffi8 libssl3 \
  libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 libreadline8 libcrypt1)
for deb in "$place"/debs/*.deb; do dpkg -x "$deb" "$place/root"; done

wheels=(--only-binary=:all: --implementation cp --python-version 3.11)
for tag in 2_17 2_27 2_28 2_34 2_39; do wheels+=(--platform "manylinux_${tag}_aarch64"); done
pip install -q --no-deps --target "$place/site" "${wheels[@]}" --platform manylinux2014_aarch64 \
  -c constraints.txt numpy tokenizers jinja2 markupsafe msgspec safetensors tqdm \
  apache-tvm apache-tvm-ffi ml-dtypes typing-extensions
qemu-aarch64 -L "$place/root" "$place/root/usr/bin/$python" -c \
  'import platform; print("Python", platform.python_version(), "on", platform.machine())'
touch "$place/ready"
