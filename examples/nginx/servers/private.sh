#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# private.sh LAYER COMMAND...: run a command as root of a machine of its own: this one's files, with those of
# LAYER, which is another filesystem, laid over, and changes to them kept in memory; no processes, no network,
# no shared memory, no /tmp but its own.  Nothing of it is there afterwards.  This is run in namespaces: see run.py.
set -eu
layer=$1
shift

mount --make-rprivate /
# A folder that is there: one of its own would stay.
here=/mnt
mount -t tmpfs -o mode=755 none "$here"
mkdir "$here/upper" "$here/work" "$here/all"
mount -t overlay -o "lowerdir=$layer:/,upperdir=$here/upper,workdir=$here/work" none "$here/all"
cd "$here/all"
mount -t proc proc proc
mount --rbind /dev dev
for folder in tmp run dev/shm; do
	mount -t tmpfs -o mode=1777 none $folder
done
ip link set lo up
exec chroot . "$@"
