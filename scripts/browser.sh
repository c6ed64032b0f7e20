#!/bin/sh
# A Chromium for the tests of the app: the one that is there, else Debian's, else Playwright's.
set -eu

has() { command -v "$1" >/dev/null 2>&1; }

if has chromium || has chromium-browser || has google-chrome; then
    exit 0
fi
if has apt-get; then
    root=""
    if [ "$(id -u)" -ne 0 ]; then
        if has sudo && sudo -n true 2>/dev/null; then root="sudo -n"; else root="none"; fi
    fi
    if [ "$root" != "none" ]; then
        echo "Installing chromium with apt-get"
        if $root apt-get update -qq && $root apt-get install -y -qq --no-install-recommends chromium && has chromium; then
            exit 0
        fi
        echo "apt-get has no chromium; trying Playwright's" >&2
    fi
fi
echo "Fetching Playwright's chromium"
"${PLAYWRIGHT:-playwright}" install chromium
