#!/bin/sh
# Runs the compiler for cargo (`build.rustc-wrapper`), and gives optimised builds what benches/profile.py recorded of a
# proxy at work: to the compiler the profile, and to the linker the order of functions. Not for fuzzing, nor for another
# compiler than the record is from.
#
# PORTCULLIS_PROFILE has other flags in place of both; set to nothing, release builds are made without a profile. A
# wrapper of your own (RUSTC_WRAPPER, such as sccache) takes the place of this one: the same program, somewhat slower.
set -u
rustc=$1
shift
folder=${0%/*}
case " $* " in
*" fuzzing "* | *sancov*) exec "$rustc" "$@" ;;
*" opt-level="*) ;;
*) exec "$rustc" "$@" ;;
esac
if [ -n "${PORTCULLIS_PROFILE+set}" ]; then
  # shellcheck disable=SC2086 # several flags
  exec "$rustc" "$@" $PORTCULLIS_PROFILE
fi
version=$("$rustc" -vV)
case $version in
*"release: 1.95."*) ;;
*) exec "$rustc" "$@" ;;
esac
if [ -f "$folder/release.profdata" ]; then
  # A function that has changed since is compiled without the profile, and without a word about it.
  set -- "$@" "-Cprofile-use=$folder/release.profdata" -Cllvm-args=-no-pgo-warn-mismatch
fi
# Only lld takes an order: the linker that comes with this compiler, where nobody has asked for another one.
host=x86_64-unknown-linux-gnu
case " $* " in
*" --target "* | *linker* | *link-arg*) ;;
*" --crate-name portcullis "*" --crate-type bin "*)
  case $version in
  *"host: $host"*)
    if [ -f "$folder/release.order" ] && [ -x "$("$rustc" --print sysroot)/lib/rustlib/$host/bin/gcc-ld/ld.lld" ]; then
      # Not by `-Wl,`, which takes a comma in the name of the folder for its own.
      set -- "$@" -Clink-arg=-Xlinker "-Clink-arg=--symbol-ordering-file=$folder/release.order"
      set -- "$@" -Clink-arg=-Xlinker -Clink-arg=--no-warn-symbol-ordering
    fi
    ;;
  esac
  ;;
esac
exec "$rustc" "$@"
