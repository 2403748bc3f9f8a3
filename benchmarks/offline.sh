#!/usr/bin/env bash
# What gpu_proof.py needs, for a machine with Python, pip and torch where nothing can be fetched. In a checkout:
#
#   bash benchmarks/offline.sh list > there.txt              there: what it has
#   bash benchmarks/offline.sh pack there.txt 3.12 parts     where there is a network: what is missing, for its Python
#   bash benchmarks/offline.sh join parts site               there again, with the folder of parts: one folder to import
#   PYTHONPATH=$PWD/site:$PWD python benchmarks/gpu_proof.py --out proof
#
# Parts have 20 MB each (PART_BYTES), with their checksums. MLflow is left out: the proof tracks nothing.
set -euo pipefail

needs=("ray[data,default,train,tune]>=2.60,<2.61" numpy opencv-python-headless pillow pyarrow zlib-ng pandas psutil
  pyyaml safetensors tenacity typer rich)
alone=(rf-cutie omegaconf) # with what they ask for besides, they would bring a torch of their own

normal() { sed -E 's/[-_.]+/-/g; s/.*/\L&/'; }

case "${1:-}" in
list)
  python3 -m pip list --format freeze --disable-pip-version-check
  ;;
pack)
  there=$2 version=$3 parts=$4
  mkdir -p "$parts"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # What is there stays: the new must fit it. Versions of a GPU's own build (+cu130) are found nowhere else.
  grep -E '^[A-Za-z0-9_.-]+==[^+]+$' "$there" | grep -vE '^(pip|setuptools|wheel|ovos-ray)==' > "$work/constraints"
  only=(--only-binary=:all: --implementation cp --python-version "$version")
  for platform in manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do only+=(--platform "$platform"); done
  fetch=(python3 -m pip download --quiet --disable-pip-version-check --dest "$work/wheels")
  "${fetch[@]}" "${only[@]}" --constraint "$work/constraints" "${needs[@]}"
  "${fetch[@]}" "${only[@]}" --no-deps "${alone[@]}"
  python3 -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$work/wheels" "antlr4-python3-runtime==4.9.*"
  cut -d= -f1 "$there" | normal | sort > "$work/names"
  mkdir "$work/site"
  for wheel in "$work"/wheels/*.whl; do
    name=$(basename "$wheel" | cut -d- -f1 | normal)
    grep -qx "$name" "$work/names" || { echo "$(basename "$wheel")"; python3 -m zipfile -e "$wheel" "$work/site"; }
  done
  rm -rf "$work"/site/ray/jars "$work"/site/ray/rllib # Java, and reinforcement learning: nothing here asks for them
  tar -C "$work/site" -cJf - . | split -b "${PART_BYTES:-20000000}" -d - "$parts/site.tar.xz."
  (cd "$parts" && sha256sum site.tar.xz.* > SHA256SUMS && ls -l)
  ;;
join)
  parts=$2 site=$3
  (cd "$parts" && sha256sum --check --quiet SHA256SUMS)
  mkdir -p "$site"
  cat "$parts"/site.tar.xz.* | python3 -c \
    "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|xz').extractall(sys.argv[1], filter='tar')" "$site"
  chmod -R u+x "$site/ray/core/src/ray" # a wheel's executables, which lose that when it is unpacked as a zip file
  echo "in $site: $(find "$site" -maxdepth 1 -name '*.dist-info' | wc -l) packages"
  ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
