#!/bin/sh
# Cuts DejaVu Sans down to what chart labels need (Latin, and the signs in our titles), for src/report/font/.
# Needs Debian's fonts-dejavu-core and `pip install fonttools==4.68.0`. Licence: src/report/font/LICENSE.
set -eu
from=/usr/share/fonts/truetype/dejavu
to=$(dirname "$0")/../src/report/font
for face in DejaVuSans DejaVuSans-Bold; do
    pyftsubset "$from/$face.ttf" \
        --unicodes='U+0020-007E,U+00A0-00FF,U+2013,U+2014,U+2018,U+2019,U+201C,U+201D,U+2026,U+2192,U+2212,U+2248,U+2264,U+2265' \
        --no-hinting --legacy-kern --layout-features='kern' --drop-tables+=GSUB \
        --output-file="$to/$face.subset.ttf"
done
