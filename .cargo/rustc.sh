#!/bin/sh
# Runs the compiler for cargo (`build.rustc-wrapper`), and gives optimised builds the profile that benches/profile.py
# took of a proxy at work. Not for fuzzing, nor for another compiler than the profile is from.
#
# PORTCULLIS_PROFILE has other flags in its place; set to nothing, release builds are made without a profile. A wrapper
# of your own (RUSTC_WRAPPER, such as sccache) takes the place of this one: the same program, somewhat slower.
set -u
rustc=$1
shift
case " $* " in
*" fuzzing "* | *sancov*) ;;
*" opt-level="*)
  profile=${0%/*}/release.profdata
  if [ -n "${PORTCULLIS_PROFILE+set}" ]; then
    # shellcheck disable=SC2086 # several flags
    exec "$rustc" "$@" $PORTCULLIS_PROFILE
  fi
  if [ -f "$profile" ] && "$rustc" --version | grep -q '^rustc 1\.95\.'; then
    # A function that has changed since is compiled without the profile, and without a word about it.
    exec "$rustc" "$@" "-Cprofile-use=$profile" -Cllvm-args=-no-pgo-warn-mismatch
  fi
  ;;
esac
exec "$rustc" "$@"
