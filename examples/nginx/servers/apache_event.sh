# SPDX-License-Identifier: MIT
mpm=event
. "$dir/apache.sh"
