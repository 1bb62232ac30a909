#!/usr/bin/env bash
# Runs the README's first two commands on fresh machines: Debian roots with Rust and a linker, and with no graphics driver, GL,
# Vulkan or both.
#
#     .ci/roots.sh [nothing|gl|vulkan|both]...     as root, on Debian with debootstrap; all four by default
#
# Each root is created anew, with this machine's Rust and crates and a clone of this repository's last commit. The output of
# the commands is in NAME.log next to it. ROOTS sets the folder (4 GB per root), COMMANDS the commands to run instead.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${ROOTS:-/var/tmp/wgpu-attention-roots}
commands=${COMMANDS:-'cargo run --release && CI=true cargo xtask test'}

declare -A drivers=(
    [nothing]=""
    [gl]="libegl1 libgl1-mesa-dri"
    [vulkan]="libvulkan1 mesa-vulkan-drivers"
    [both]="libegl1 libgl1-mesa-dri libvulkan1 mesa-vulkan-drivers"
)

# A minimal Debian of this machine's release, with its package sources and certificates.
make_root() {
    local root=$1
    shift
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root"
    rm -rf "$root/etc/apt/sources.list"
    cp -rL /etc/apt/. "$root/etc/apt/"
    cp -L --remove-destination /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    cp -L --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
    git clone --quiet . "$root/root/wgpu-attention"
    mkdir -p "$root/root/.cargo" "$root/root/.rustup"
    if (($#)); then
        chroot "$root" apt-get update
        chroot "$root" apt-get install --yes --no-install-recommends "$@"
    fi
}

# The mounts are removed when the command ends, and whatever it left running is killed.
run_in() {
    unshare --mount --pid --fork --kill-child bash -euc '
        root=$1
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "${CARGO_HOME:-$HOME/.cargo}" "$root/root/.cargo"
        mount --bind "${RUSTUP_HOME:-$HOME/.rustup}" "$root/root/.rustup"
        unset CARGO_HOME RUSTUP_HOME
        export HOME=/root PATH=/root/.cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin
        exec chroot "$root" bash -c "cd /root/wgpu-attention && $2"
    ' - "$@"
}

(($#)) || set -- nothing gl vulkan both
mkdir -p "$folder"
failed=()
for name; do
    echo "==== $name: ${drivers[$name]-unknown}"
    # shellcheck disable=SC2086 # several packages
    make_root "$folder/$name" ${drivers[$name]} >"$folder/$name.log" 2>&1
    begin=$SECONDS
    if run_in "$folder/$name" "$commands" >>"$folder/$name.log" 2>&1; then verdict=ok; else verdict=FAILED failed+=("$name"); fi
    echo "==== $name: $verdict, $(((SECONDS - begin) / 60)) min; $folder/$name.log"
done
((${#failed[@]} == 0))
