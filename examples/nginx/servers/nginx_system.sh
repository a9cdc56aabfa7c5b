# SPDX-License-Identifier: MIT
# The environment is lost at the upgrade, as no "env" line is there.
. "$dir/nginx.sh"
title="nginx, by the system's file, without its environment"
way=system
env_line=
work="sessions upgrade"
