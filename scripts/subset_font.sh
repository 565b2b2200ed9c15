#!/bin/sh
# Cuts fonts down to what charts need, for src/report/font/. DejaVu Sans: Latin, and the signs in our titles. Noto Sans CJK SC: the
# characters of the Chinese catalogue, src/language/zh.toml, and no other. Run it again after a new word there: a test compares.
# Needs Debian's fonts-dejavu-core and fonts-noto-cjk, and `pip install fonttools==4.68.0`. Licences: src/report/font/LICENSE,
# src/report/font/OFL.txt.
set -eu
here=$(dirname "$0")
to=$here/../src/report/font
for face in DejaVuSans DejaVuSans-Bold; do
    pyftsubset "/usr/share/fonts/truetype/dejavu/$face.ttf" \
        --unicodes='U+0020-007E,U+00A0-00FF,U+2013,U+2014,U+2018,U+2019,U+201C,U+201D,U+2026,U+2192,U+2212,U+2248,U+2264,U+2265' \
        --no-hinting --legacy-kern --layout-features='kern' --drop-tables+=GSUB \
        --output-file="$to/$face.subset.ttf"
done
characters=$(mktemp)
trap 'rm -f "$characters"' EXIT
# Comments are not shown, and keys are Latin.
python3 - "$here/../src/language/zh.toml" > "$characters" <<'END'
import sys, tomllib
groups = tomllib.load(open(sys.argv[1], "rb")).values()
print("".join(sorted({c for group in groups for text in group.values() for c in text if c >= "\u2e80"})))
END
# The third font of the collection is the one for simplified Chinese.
pyftsubset /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc --font-number=2 --text-file="$characters" \
    --no-hinting --desubroutinize --layout-features='' --drop-tables+=GSUB,GPOS,vhea,vmtx,VORG,BASE,FFTM \
    --name-IDs='0,1,2,4,5,6,13,14' --output-file="$to/NotoSansCJKsc-Regular.subset.otf"
