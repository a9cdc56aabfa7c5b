#!/bin/sh
# SPDX-License-Identifier: MIT
# app_test.sh PROGRAM [BACKEND]: it does what it is for, and keeps what it is to keep.  Without BACKEND under the
# one that protects by pages, which is everywhere.
set -u
program=$1
# What needs the kernel module to be refused is refused.
EPK_BACKEND=${2-mprotect} EPK_STRICT=1
export EPK_BACKEND EPK_STRICT

file=$(mktemp)
trap 'rm -f "$file"' EXIT
echo token >"$file"
said=$("$program" "$file") || exit 1
[ "$said" = "$EPK_BACKEND: 47609" ] || { echo "it says: $said"; exit 1; }
# A fault is SIGSEGV, which a shell shows as 139.
said=$("$program" "$file" --leak 2>&1)
[ $? = 139 ] || { echo "the token is read from outside: $said"; exit 1; }
case $said in *token*) echo "it leaks: $said"; exit 1 ;; esac
# What a file has against being read is said as the kernel means it.
case $("$program" "$file.none" 2>&1) in *"No such file"*) ;; *) echo "it misnames what open(2) said"; exit 1 ;; esac
case $("$program" /dev/null 2>&1) in *"/dev/null: empty"*) ;; *) echo "it misnames an empty file"; exit 1 ;; esac
