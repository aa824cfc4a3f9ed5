#!/bin/sh
# Takes away what install.sh put in place. Models, state and settings stay, unless --purge is said.
#
#   sudo contrib/uninstall.sh              # the services and the program
#   sudo contrib/uninstall.sh --purge      # models, state, settings and the user, too
#   contrib/uninstall.sh --dry-run         # say what would go
set -eu

dry_run=
purge=
prefix=/opt/mirror
root=${DESTDIR:-}

fail() {
    echo "uninstall.sh: $1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry_run=yes ;;
        --purge) purge=yes ;;
        --prefix)
            [ $# -gt 1 ] || fail "--prefix needs a value"
            prefix=$2
            shift
            ;;
        -h | --help)
            sed -n '2,6s/^# \{0,1\}//p' "$0"
            echo
            echo "--prefix FOLDER is where the program is (/opt/mirror); DESTDIR is put before every path."
            exit 0
            ;;
        *) fail "unknown: $1 (--help shows what there is)" ;;
    esac
    shift
done
case $prefix in /?*/?* | /opt/?*) ;; *) fail "--prefix has to be a folder of the mirror's own, not $prefix" ;; esac
[ -n "$dry_run" ] || [ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "this needs root (or --dry-run, or DESTDIR)"

run() {
    if [ -n "$dry_run" ]; then
        echo "would run: $*"
    else
        "$@"
    fi
}

gone() {
    for path in "$@"; do
        [ ! -e "$path" ] || run rm -rf -- "$path"
    done
}

if [ -z "$root" ] && command -v systemctl >/dev/null; then
    for service in mirror mirror-node; do
        [ ! -e "/etc/systemd/system/$service.service" ] || run systemctl disable --now "$service"
    done
fi
moved="$root/etc/systemd/system/ollama.service.d/behind-mirror.conf"
was_moved=
[ ! -e "$moved" ] || was_moved=yes
gone "$root/etc/systemd/system/mirror.service" "$root/etc/systemd/system/mirror-node.service" "$moved"
# The program's folder goes only if it is one.
[ ! -e "$root$prefix/bin/mirror" ] || gone "$root$prefix"
if [ -n "$purge" ]; then
    gone "$root/var/lib/mirror" "$root/var/cache/mirror" "$root/etc/mirror"
    if [ -z "$root" ] && getent passwd mirror >/dev/null; then
        run userdel mirror
    fi
else
    for path in "$root/var/lib/mirror" "$root/etc/mirror"; do
        [ ! -e "$path" ] || echo "$path stays (--purge takes it away)"
    done
fi
if [ -z "$root" ] && command -v systemctl >/dev/null; then
    run systemctl daemon-reload
    [ -z "$was_moved" ] || run systemctl try-restart ollama
fi
