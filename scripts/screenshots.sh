#!/bin/sh
# Photographs a page as its readers see it: wide, on a telephone, in grey, and printed. Needs Chromium; the printed pages as
# pictures need pdftoppm.
#
#   scripts/screenshots.sh reports/RUN/report.html pictures
#   glmbench index && scripts/screenshots.sh reports/index.html pictures
#   GLMBENCH_REPORT_SAMPLE=/tmp/sample cargo test --release --lib gallery && scripts/screenshots.sh /tmp/sample/gallery/gallery.html pictures
set -eu
[ $# -eq 2 ] || { echo "usage: scripts/screenshots.sh PAGE.html FOLDER" >&2; exit 2; }
page=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
for browser in chromium google-chrome chrome-headless-shell; do
    command -v "$browser" >/dev/null && break
    browser=
done
[ -n "$browser" ] || { echo "found no chromium, google-chrome or chrome-headless-shell; install one" >&2; exit 2; }

profile=$(mktemp -d)
grey=$(mktemp --suffix=.html)
framed=$(mktemp --suffix=.html)
trap 'rm -rf "$profile" "$grey" "$framed"' EXIT
# HEIGHT is that of the pictures.
photograph() { # WIDTH HEIGHT PAGE FILE
    "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
        --window-size="$1,$2" --screenshot="$folder/$4" "file://$3" >/dev/null 2>&1
}
sed 's|</style>|html { filter: grayscale(1); }</style>|' "$page" > "$grey"
photograph 1280 "${HEIGHT:-2400}" "$page" wide.png
# A window is never as narrow as a telephone: a frame is.
cat > "$framed" <<END
<!DOCTYPE html><body style="margin:0"><iframe src="file://$page" style="width:420px;height:${HEIGHT:-2400}px;border:0"></iframe>
END
photograph 520 "${HEIGHT:-2400}" "$framed" narrow.png
photograph 1280 "${HEIGHT:-2400}" "$grey" grey.png
"$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$profile" --no-pdf-header-footer \
    --print-to-pdf="$folder/printed.pdf" "file://$page" >/dev/null 2>&1
if command -v pdftoppm >/dev/null; then
    pdftoppm -r 60 -png "$folder/printed.pdf" "$folder/printed"
fi
ls "$folder"
