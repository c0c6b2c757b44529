#!/bin/sh
# Grow a small model on the King James Bible and study 32 of its words. Needs the program `bible`
# of the Debian package bible-kjv (apt-get install bible-kjv), about 15 minutes of one core and
# 200 MB. Killed at any point, the same command goes on.
#
#   examples/kjv/run.sh [FOLDER]        (KNTRACE=path/to/kntrace, BIBLE=path/to/bible)
set -eu

out=${1:-kjv}
kntrace=${KNTRACE:-kntrace}
bible=${BIBLE:-bible}
study=$(dirname "$0")/study.yaml

command -v "${bible%% *}" > /dev/null || {
    echo "run.sh: no program bible; on Debian or Ubuntu: apt-get install bible-kjv" >&2
    exit 2
}
mkdir -p "$out"
# One verse a line, without numbers and headings.
if [ ! -f "$out/kjv.txt" ]; then
    $bible -l100000 gen1:1-rev22:21 < /dev/null | sed -n 's/^ *[0-9][0-9]* //p' > "$out/kjv.part"
    mv "$out/kjv.part" "$out/kjv.txt"
fi
"$kntrace" grow "$out/suite" --corpus "$out/kjv.txt" \
    --steps 2000 --checkpoints log:16 --learning-rate 0.002
"$kntrace" check "$study" --suite "$out/suite" --answers
"$kntrace" run "$study" "$out/suite" --out "$out/run"
"$kntrace" analyse "$out/run"
"$kntrace" report "$out/run"
