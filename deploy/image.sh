#!/bin/sh
# Puts together the file system of an image: a binary, the shared libraries that it names, CA certificates,
# and a user. The Dockerfile's build stage and the tests run it.
#   image.sh BINARY DIRECTORY
set -eu
binary=$1
root=$2

install -d -m 0755 "$root"
install -D -m 0755 "$binary" "$root/usr/bin/portcullis"

# "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)"
ldd "$binary" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done

install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

install -d -m 1777 "$root/tmp"
install -d -m 0700 "$root/var/lib/portcullis"
if [ "$(id -u)" = 0 ]; then
    chown 65532:65532 "$root/var/lib/portcullis"
fi
