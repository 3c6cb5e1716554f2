#!/bin/sh
# Installs the project and one of its extras into /opt/keepmore, for an image. Run in its build stage, in /src.
#   install.sh dependencies EXTRA [pip's options]   all that the extra needs: a layer that outlives changes of the code
#   install.sh project                              the project itself
#   install.sh slim MODULE...                       leaves out what never runs, compiles the rest, imports these
set -eu
PREFIX=/opt/keepmore
SITE="$PREFIX/lib/python3.11/site-packages"
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

into() {
  python3 -m pip --python "$PREFIX/bin/python3" "$@"
}

case "$1" in
dependencies)
  extra=$2
  shift 2
  python3 -m venv --without-pip "$PREFIX"
  mkdir -p keepmore services/shared services/api services/worker services/trainer
  touch keepmore/__init__.py
  into install --no-compile --constraint constraints.txt ".[$extra]" "$@"
  into uninstall --yes keepmore
  rm -rf build ./*.egg-info keepmore services # setuptools would take what it built of these for newer than the project
  ;;
project)
  into install --no-compile --no-deps .
  ;;
slim)
  # pyarrow: servers and clients of its own, headers, and names of one library that were links before they were a wheel.
  (
    cd "$SITE/pyarrow"
    rm -rf include src tests libarrow_flight.* libarrow_python_flight.* _flight.* libarrow_s3.* _s3fs.* _pyarrow_cpp_tests.*
    for library in libarrow_python libarrow_python_parquet_encryption; do
      rm -f "$library.so" "$library".so.*.*.*
    done
  )
  find "$SITE" -type d \( -name tests -o -name SelfTest \) -not -path "*/torch/*" -prune -exec rm -rf {} +
  # Symbols of libraries that their makers left in. Not those that a wheel's repair moved: stripping may break them.
  for package in pyarrow Crypto uvloop; do
    [ ! -d "$SITE/$package" ] || find "$SITE/$package" -name "*.so*" -exec strip --strip-unneeded {} +
  done
  # What compilers and type checkers read. Torch reads some of its own.
  find "$SITE" -not -path "*/torch/*" \( -name "*.pyi" -o -name "*.h" -o -name "*.a" -o -name "*.p[xy][dix]" \) -delete
  # Rich can colour programs of five hundred languages; numpy can compile Fortran, which SciPy imports all the same.
  find "$SITE/pygments/lexers" -name "*.py" -not -name __init__.py -not -name _mapping.py -not -name python.py -delete
  [ -d "$SITE/scipy" ] || rm -rf "$SITE/numpy/f2py"
  rm -rf "$SITE/numpy/distutils"
  python3 -m compileall -q -j 0 -x "/(torch|torchvision|sympy|pygments|wcwidth|prompt_toolkit|redis/asyncio)/" "$SITE"
  cd /
  shift
  for module in pyarrow.parquet pyarrow.compute pyarrow.csv keepmore.cli.main keepmore.net.s3 "$@"; do
    "$PREFIX/bin/python3" -c "import $module"
  done
  ;;
*)
  echo "install.sh: dependencies, project or slim; not $1" >&2
  exit 2
  ;;
esac
