#!/bin/sh
# Installs the mirror, or a node of its hub, as a service. Run it from a checkout:
#
#   sudo contrib/install.sh                        # the mirror
#   sudo contrib/install.sh --move-ollama          # ... at the Ollama's own address; that goes to 11435
#   sudo contrib/install.sh node --hub http://HUB:11434 --required llama3.2,qwen3:8b
#   contrib/install.sh --dry-run                   # say what would be done, and do nothing
#
# It may be run again: what is there is brought up to date, settings and models are left as they are.
set -eu

kind=mirror
dry_run=
move_ollama=
start=yes
programs=yes
hub=
required=
firewall=
prefix=/opt/mirror
root=${DESTDIR:-}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    cat <<'TEXT'

Options:
  --dry-run          say what would be done, and do nothing
  --move-ollama      have this machine's Ollama listen at 127.0.0.1:11435, so that the mirror can take its place
  --prefix FOLDER    where the program goes (/opt/mirror)
  --hub URL          of a node: its hub
  --required NAMES   of a node: models it must have, by commas; they come through the hub
  --open-firewall    open the port (11434, of a node 8001) in ufw or firewalld, where one of them runs
  --no-programs      the program is at --prefix already
  --no-start         put everything in place and start nothing
DESTDIR, if set, is put before every path; nothing is started and no user made then.
TEXT
}

fail() {
    echo "install.sh: $1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        mirror | node) kind=$1 ;;
        --dry-run) dry_run=yes ;;
        --move-ollama) move_ollama=yes ;;
        --open-firewall) firewall=yes ;;
        --no-start) start= ;;
        --no-programs) programs= ;;
        --prefix | --hub | --required)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in --prefix) prefix=$2 ;; --hub) hub=$2 ;; --required) required=$2 ;; esac
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown: $1 (--help shows what there is)" ;;
    esac
    shift
done

case $prefix in /*) ;; *) fail "--prefix has to be a whole path, not $prefix" ;; esac
case $prefix$hub$required in *[[:space:]\"\'\\\$\`]*) fail "no spaces, quotes or dollars in values" ;; esac
[ "$kind" = mirror ] || [ -n "$hub" ] || [ -e "$root/etc/mirror/node" ] || fail "a node needs --hub http://HUB:11434"
[ -n "$dry_run" ] || [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "this needs root (or --dry-run, or DESTDIR)"
[ -z "$root" ] || start=

# Does one thing, or says it.
run() {
    if [ -n "$dry_run" ]; then
        echo "would run: $*"
    else
        "$@"
    fi
}

# Writes a file from standard input, unless it is so already: write_file MODE PATH
write_file() {
    text=$(cat)
    if [ -e "$2" ] && [ "$text" = "$(cat "$2")" ]; then
        return
    fi
    if [ -n "$dry_run" ]; then
        echo "would write $2"
        return
    fi
    echo "writing $2"
    mkdir -p "$(dirname "$2")"
    printf '%s\n' "$text" >"$2.new"
    chmod "$1" "$2.new"
    mv "$2.new" "$2"
}

unit_of() {
    sed "s|/opt/mirror/|$prefix/|g" "$here/contrib/systemd/$1"
}

open_port() {
    [ -n "$firewall" ] || return 0
    if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q "^Status: active"; then
        run ufw allow "$1/tcp"
    elif command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
        run firewall-cmd --permanent --add-port="$1/tcp"
        run firewall-cmd --reload
    else
        echo "neither ufw nor firewalld is at work here: no port was opened"
    fi
}

if [ -n "$programs" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11: set PYTHON"
    run mkdir -p "$root$prefix"
    run "$python" -m venv "$root$prefix"
    run "$root$prefix/bin/python" -m pip install --quiet --constraint "$here/requirements.lock" "$here[mdns,tui]"
fi

if [ "$kind" = mirror ]; then
    if [ -z "$root" ] && ! getent passwd mirror >/dev/null; then
        run useradd --system --home-dir /var/lib/mirror --no-create-home --shell /usr/sbin/nologin mirror
    fi
    [ -e "$root/etc/mirror/config.yaml" ] || write_file 644 "$root/etc/mirror/config.yaml" <"$here/config.yaml"
    unit_of mirror.service | write_file 644 "$root/etc/systemd/system/mirror.service"
    open_port 11434
else
    if [ -n "$hub" ]; then
        {
            echo "SERVER_URL=$hub"
            [ -z "$required" ] || echo "REQUIRED_MODELS=$required"
        } | write_file 600 "$root/etc/mirror/node"
    fi
    ollama=${OLLAMA_BASE_URL:-http://127.0.0.1:11434}
    "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/api/version", timeout=3)' "$ollama" \
        2>/dev/null || echo "no Ollama answers at $ollama yet: the node tells its hub so until one does"
    unit_of mirror-node.service | write_file 644 "$root/etc/systemd/system/mirror-node.service"
    open_port 8001
fi

if [ -n "$move_ollama" ]; then
    write_file 644 "$root/etc/systemd/system/ollama.service.d/behind-mirror.conf" \
        <"$here/contrib/systemd/ollama.service.d/behind-mirror.conf"
fi

service=mirror
[ "$kind" = mirror ] || service=mirror-node
if [ -z "$start" ]; then
    echo "nothing was started; later: systemctl daemon-reload && systemctl enable --now $service"
    exit 0
fi
run systemctl daemon-reload
[ -z "$move_ollama" ] || run systemctl try-restart ollama
run systemctl enable "$service"
run systemctl restart "$service"
[ -n "$dry_run" ] || echo "$service runs: systemctl status $service; its log: journalctl -u $service"
