#!/bin/sh
# Take from the image's file system what only its making needs: package tools, Perl, logins, documents, caches.
# dpkg's record of what is left stays, for those who scan images. Run by the Dockerfile, in the image.
set -eu

printf 'nameward-resolver:x:65353:65353:Nameward resolver:/nonexistent:/usr/sbin/nologin\n' >>/etc/passwd
printf 'nameward-resolver:x:65353:\n' >>/etc/group

unwanted="adduser apt debconf debconf-i18n debian-archive-keyring e2fsprogs gpgv sqv login login.defs logsave
    mount openssl openssl-provider-legacy passwd perl-base sysvinit-utils init-system-helpers
    bsdutils tzdata util-linux libapt-pkg6.0 libapt-pkg6.0t64 libapt-pkg7.0 ncurses-bin ncurses-base"
present=""
for package in $unwanted; do
    if dpkg-query -W "$package" >/dev/null 2>&1; then
        present="$present $package"
    fi
done
# shellcheck disable=SC2086 - a list of words
dpkg --purge --force-all $present >/dev/null 2>&1 || dpkg --purge --force-all $present

find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
rm -rf /usr/share/doc-base /usr/share/info /usr/share/lintian /usr/share/locale /usr/share/man /usr/share/bug \
    /usr/share/zoneinfo /usr/share/perl* /etc/apt /var/lib/apt /var/cache/* /var/log/* /var/lib/dpkg/*-old \
    /var/backups /tmp/* ~/.cache /etc/.pwd.lock
find /usr/share/doc -mindepth 1 ! -name copyright ! -type d -delete
find /usr/share/doc -mindepth 1 -type d -empty -delete
find /usr/lib/python3* -depth -type d \( -name test -o -name idlelib -o -name turtledemo -o -name ensurepip \
    -o -name pydoc_data \) \
    -exec rm -rf {} +
rm -rf /usr/lib/*/gconv
rm -f /usr/bin/dpkg* /usr/sbin/dpkg* /usr/bin/update-alternatives
mkdir -p /usr/share/nameward
