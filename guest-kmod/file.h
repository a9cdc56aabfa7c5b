/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Domain memory that is a file's, for the two files that deal with it.
 */
#ifndef EPK_FILE_H
#define EPK_FILE_H

#include <linux/fs.h>
#include <linux/mmu_notifier.h>

#include "mapping.h"

/**
 * struct epk_backing - the private data of the file that a mapping has
 * @dev: the open /dev/epk, which keeps the context
 * @lower: the file that the caller gave
 * @lower_private: what the filesystem had in our file
 * @path: what our file was opened by
 * @id: the domain
 */
struct epk_backing {
	struct file *dev;
	struct file *lower;
	void *lower_private;
	struct path path;
	int id;
};

/**
 * struct epk_file_mapping - a mapping over a file
 * @mapping: what every mapping has; its pages are those that have a PTE
 * @notifier: tells what must lose its PTE
 * @lower: what the filesystem would have had in the VMA
 */
struct epk_file_mapping {
	struct epk_mapping mapping;
	struct mmu_interval_notifier notifier;
	const struct vm_operations_struct *lower;
};

static inline struct epk_file_mapping *vma_file_mapping(const struct vm_area_struct *vma)
{
	return container_of(vma->vm_private_data, struct epk_file_mapping, mapping);
}

int epk_file_prepare(const struct file *file);
vm_fault_t epk_file_fault(struct vm_fault *vmf);
vm_fault_t epk_file_mkwrite(struct vm_fault *vmf);

extern const struct mmu_interval_notifier_ops epk_file_notifier_ops;

#endif /* EPK_FILE_H */
