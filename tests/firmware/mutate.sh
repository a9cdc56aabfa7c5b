#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# mutate.sh: defects of the module's chooser, each of which has to make choose_test fail.
set -eu
cd "$(dirname "$0")"
source=../../guest-kmod/choose.c
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 number=0

# defect TEXT IN-ITS-PLACE, the former once in the source
defect() {
	number=$((number + 1))
	python3 - "$source" "$work/choose.c" "$1" "$2" <<-'END' || { failed=1; return 0; }
		import sys
		text = open(sys.argv[1]).read()
		if text.count(sys.argv[3]) != 1:
		    sys.exit(f"not once in the source: {sys.argv[3]}")
		open(sys.argv[2], "w").write(text.replace(sys.argv[3], sys.argv[4]))
	END
	gcc -std=gnu11 -O1 -w -I../../guest-kmod -I../../guest-kmod/include/uapi \
		-o "$work/test" choose_test.c "$work/choose.c"
	! timeout 60 "$work/test" 2000 >"$work/out" 2>&1 || {
		echo "not noticed: $2 in place of $1"
		failed=1
	}
}

defect 'search->free - 1) / slots' 'search->free) / slots'
defect '(hole->start + slots - 1) & ' 'hole->start & '
defect 'last < hole->end && last >= hole->start' 'last < hole->end'
defect 'hole->start = KVM_EPK_FIRST_BLOCK;' 'hole->start = 1;'
defect 'windows > most' 'windows >= most'
defect 'while (most < epts && hole_below' 'while (hole_below'
defect ' && !ram_announced(space)' ''
defect 'windows_in(&search, &hole, 2 * slots) >= epts' '1'
defect 'last = block - 1;' 'last = block + count;'
defect 'taken->by == EPK_TAKEN_DEVICE || ' ''
defect 'first = block_of(space->end), end = 0' 'first = ~0ull, end = 0'
defect 'while (slots < blocks &&' 'while (2 * slots < blocks &&'
defect ' && any_slots && slots > 1)' ' && any_slots && slots > 2)'
defect '(any_epts ? 1 : want_epts))' '1)'
defect 'search->fixed && start != hole->start' '0'
defect 'search->fixed < hole.start || ' ''
defect '!(block & (layout->slots - 1)) &&' ''
defect 'count <= block_of(end) - block &&' ''
defect '(identity < block || identity >= block + count)' '1'
defect '(unsigned int)ask->epts > space->max_epts' '0'
defect 'ask->base & (step - 1)' '0'
defect 'slots < KVM_EPK_MAX_SLOTS && !ram' '!ram'
defect 'taken[i].start <= last' 'taken[i].start < last'
defect 'block >= KVM_EPK_FIRST_BLOCK && ' ''
defect 'layout->slots <= KVM_EPK_MAX_SLOTS &&' ''
defect 'layout->epts <= KVM_EPK_MAX_EPTS &&' ''

echo "choose: $number defects"
exit $failed
