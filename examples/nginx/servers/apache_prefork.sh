# SPDX-License-Identifier: MIT
mpm=prefork
. "$dir/apache.sh"
