#!/usr/bin/env bash
# A 64-bit Arm Debian with Python, ONNX Runtime and TVM, in the folder .aarch64: what
# tests/targets/test_tvm_aarch64.py and tests/runtime/native/test_aarch64.py run under qemu-user.
# Needs apt-get (as root) and pip, no Arm.
#
#   bash docs/measure/aarch64.sh && pytest tests/targets/test_tvm_aarch64.py
set -euo pipefail
cd "$(dirname "$0")/../.."
place="$PWD/.aarch64"
rm -rf "$place"
mkdir -p "$place"/{debs,root} "$place"/apt/{lists,archives}/partial

apt-get install -y -q qemu-user g++-aarch64-linux-gnu cmake
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
  apache-tvm apache-tvm-ffi ml-dtypes typing-extensions onnxruntime

# ONNX Runtime asks /proc/cpuinfo for the Arm core, and ends the process where it is that of an x86.
mkdir -p "$place/root/proc"
for core in 0 1; do
  printf 'processor\t: %s\nBogoMIPS\t: 100.00\nFeatures\t: fp asimd crc32 atomics asimddp\n' $core
  printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n'
  printf 'CPU part\t: 0xd0c\nCPU revision\t: 1\n\n'
done >"$place/root/proc/cpuinfo"
qemu-aarch64 -L "$place/root" "$place/root/usr/bin/$python" -c \
  'import platform; print("Python", platform.python_version(), "on", platform.machine())'
touch "$place/ready"

cmake --toolchain "$PWD/runtime/native/cmake/aarch64-linux.cmake" -S runtime/native \
  -B "$place/native" -DCMAKE_BUILD_TYPE=Debug
cmake --build "$place/native" --parallel "$(nproc)"
