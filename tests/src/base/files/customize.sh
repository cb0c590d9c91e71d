#!/bin/sh
# Turns a fresh Debian tree ($1) into the stand-in for an Amazon Linux machine image.
# Run by mmdebstrap; FILES is the folder of this script, VARIANT the stand-in to make.
set -eu
root=$1

install -m 644 "$FILES/cloud.cfg" "$root/etc/cloud/cloud.cfg"
find "$root/etc/cloud/cloud.cfg.d" -type f ! -name 05_logging.cfg -delete
echo 'policy: enabled' > "$root/etc/cloud/ds-identify.cfg"
install -m 644 "$FILES/eth.network" "$root/etc/systemd/network/10-eth.network"
install -D -m 644 "$FILES/sandbox-ca.pem" "$root/usr/local/share/ca-certificates/sandbox-ca.crt"
chroot "$root" update-ca-certificates

# The resolver of every VPC; a link-local address, so that it does not depend on the VPC's range.
rm -f "$root/etc/resolv.conf"
echo 'nameserver 169.254.169.253' > "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n' > "$root/etc/hosts"
echo localhost > "$root/etc/hostname"
: > "$root/etc/fstab"
echo "Debian 12 stand-in for Amazon Linux ($VARIANT)" > "$root/etc/cos-stand-in"

chroot "$root" useradd --create-home --shell /bin/bash ec2-user
chroot "$root" systemctl enable systemd-networkd.service systemd-networkd-wait-online.service ssh.service
# The local stage would ask for DHCP a second time with dhclient; the configuration stage is empty.
# The timers and gettys only burn the emulated processor.
chroot "$root" systemctl mask cloud-init-local.service cloud-config.service cloud-init-hotplugd.socket \
    getty@tty1.service e2scrub_all.timer e2scrub_reap.service fstrim.timer apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer systemd-pstore.service networking.service ifupdown-pre.service

if [ "$VARIANT" = al2023 ]; then
    # Amazon Linux 2023 has no iptables, but its repositories do: a flat one in the disk stands for them.
    repository=$root/var/lib/base-repository
    mkdir -p "$repository"
    rm -f "$root"/var/cache/apt/archives/*.deb
    APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get install --yes --no-install-recommends --download-only iptables
    for package in "$root"/var/cache/apt/archives/*.deb; do
        mv "$package" "$repository/"
    done
    for package in "$repository"/*.deb; do
        dpkg-deb --field "$package"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$(basename "$package")" \
            "$(stat --format=%s "$package")" "$(sha256sum "$package" | cut -d' ' -f1)"
    done > "$repository/Packages"
fi
rm -rf "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/*
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap
mkdir -p "$root/var/lib/apt/lists/partial"
if [ "$VARIANT" = al2023 ]; then
    echo 'deb [trusted=yes] file:///var/lib/base-repository ./' > "$root/etc/apt/sources.list"
    chroot "$root" apt-get update
fi

# A machine image carries no identity.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/systemd/random-seed" "$root/var/lib/dbus/machine-id"
: > "$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/lib/cloud
