#!/bin/sh
# Installs tinylm's binary for this machine: fetches it, checks it against its published digest, and puts
# it into TINYLM_BIN (by default ~/.local/bin). Nothing else is touched.
#
#   curl -fsSL https://github.com/@REPOSITORY@/releases/download/@VERSION@/install.sh | sh
#
# TINYLM_URL names another place that holds the same files.
set -eu

url=${TINYLM_URL:-https://github.com/@REPOSITORY@/releases/download/@VERSION@}
bin=${TINYLM_BIN:-$HOME/.local/bin}

fail() {
    echo "install: $*" >&2
    exit 1
}

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) target=x86_64-unknown-linux-gnu ;;
    Linux-aarch64 | Linux-arm64) target=aarch64-unknown-linux-gnu ;;
    Darwin-arm64) target=aarch64-apple-darwin ;;
    Darwin-x86_64) target=x86_64-apple-darwin ;;
    *) fail "there is no binary for $(uname -s) on $(uname -m): build it with \`cargo build --release\`" ;;
esac
name=tinylm-$target

if command -v curl >/dev/null; then
    fetch() { curl -fsSL -o "$2" "$1"; }
elif command -v wget >/dev/null; then
    fetch() { wget -q -O "$2" "$1"; }
else
    fail "neither curl nor wget is here"
fi
if command -v sha256sum >/dev/null; then
    check() { sha256sum -c "$1" >/dev/null; }
elif command -v shasum >/dev/null; then
    check() { shasum -a 256 -c "$1" >/dev/null; }
else
    fail "neither sha256sum nor shasum is here, so the binary could not be checked"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for file in "$name.tar.gz" "$name.tar.gz.sha256"; do
    fetch "$url/$file" "$file" || fail "$url/$file does not come"
done
check "$name.tar.gz.sha256" || fail "$name.tar.gz is not what was published: nothing was installed"
tar -xzf "$name.tar.gz"
mkdir -p "$bin"
# Moved in whole, so that a tinylm that runs is not written into.
cp "$name/tinylm" "$bin/.tinylm.new"
chmod 755 "$bin/.tinylm.new"
mv -f "$bin/.tinylm.new" "$bin/tinylm"
echo "installed $("$bin/tinylm" --version) as $bin/tinylm"
case ":$PATH:" in
    *":$bin:"*) ;;
    *) echo "put $bin on your PATH, for example with: export PATH=\"$bin:\$PATH\"" ;;
esac
echo "then: tinylm init --quickstart"
