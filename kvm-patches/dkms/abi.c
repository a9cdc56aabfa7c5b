// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel itself, not its modules, was built to know of KVM's structures.  It has no
 * version that would be compared when a module is loaded.
 */
#include <linux/kbuild.h>
#include <linux/kvm_host.h>

void abi(void);

void abi(void)
{
	/* kernel/entry/kvm.c */
	OFFSET(vcpu_run, kvm_vcpu, run);
	OFFSET(vcpu_signal_exits, kvm_vcpu, stat.signal_exits);
	/* arch/x86/events/intel/core.c */
	OFFSET(pmu_ds_area, kvm_pmu, ds_area);
	OFFSET(pmu_pebs_data_cfg, kvm_pmu, pebs_data_cfg);
	OFFSET(pmu_pebs_enable, kvm_pmu, pebs_enable);
	OFFSET(pmu_host_cross_mapped_mask, kvm_pmu, host_cross_mapped_mask);
}
