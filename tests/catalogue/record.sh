#!/usr/bin/env bash
# tests/catalogue/record.sh STEP COMMAND...
# Runs the command, shows what it prints, and keeps it in $RESULTS/STEP.log for tests/catalogue/catalogue.py, with the
# name of the run that it belongs to at the top and the exit status at the end: without either it counts for nothing.
# The exit status is that of the command.
set -uo pipefail
results=${RESULTS:?} run=${RUN:?} step=$1
shift
mkdir -p "$results" || exit
rm -f "$results/$step".*
log=$results/$step.log
echo "run $run" > "$log" || exit
"$@" 2>&1 | tee -a "$log"
status=${PIPESTATUS[0]}
printf '\nexit %s\n' "$status" >> "$log"
exit "$status"
