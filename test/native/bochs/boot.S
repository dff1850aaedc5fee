// In the place of BIOS and boot loader in the PC of test/native/bochs/pc.ts: 64 KB that end at 4 GB. From the reset vector into
// 32-bit mode with flat segments, reads what the first sector of the disk lists (first sector, sectors, address; an entry
// of no sectors ends it), and goes to the kernel as its 32-bit boot protocol asks (Documentation/arch/x86/boot.rst).
        .set LIST, 0x8000
        .set PARAMETERS, 0x10000
        .set KERNEL, 0x1000000

        .text
        .code16
        cli
        cld
        lgdtl %cs:0x200
        mov $1, %eax
        mov %eax, %cr0
        ljmpl $0x10, $0xffff0100

        .org 0x100
        .code32
        mov $0x18, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
        mov %eax, %ss
        mov $LIST, %esp
        xor %ebx, %ebx
        mov $1, %ecx
        mov $LIST, %edi
        call read
        mov $LIST, %ebp
entry:  mov (%ebp), %ebx
        mov 4(%ebp), %ecx
        mov 8(%ebp), %edi
        add $12, %ebp
        jecxz start
        call read
        jmp entry
start:  mov $PARAMETERS, %esi
        xor %ebx, %ebx
        xor %edi, %edi
        xor %ebp, %ebp
        mov $KERNEL, %eax
        jmp *%eax

// %ecx sectors from sector %ebx on to %edi, by programmed input from the first disk, up to 128 in a command.
read:   mov $128, %esi
        cmp %esi, %ecx
        cmovb %ecx, %esi
        sub %esi, %ecx
        mov $0x1f2, %edx
        mov %esi, %eax
        out %al, %dx            // sectors
        inc %edx
        mov %ebx, %eax
        out %al, %dx            // first sector, 28 bits
        inc %edx
        shr $8, %eax
        out %al, %dx
        inc %edx
        shr $8, %eax
        out %al, %dx
        inc %edx
        shr $8, %eax
        or $0xe0, %al
        out %al, %dx
        inc %edx
        mov $0x20, %al
        out %al, %dx            // read
        add %esi, %ebx
sector: mov $0x1f7, %edx
wait:   in %dx, %al
        and $0x88, %al
        cmp $8, %al             // not busy, data there
        jne wait
        push %ecx
        mov $0x1f0, %edx
        mov $256, %ecx
        rep insw
        pop %ecx
        dec %esi
        jnz sector
        test %ecx, %ecx
        jnz read
        ret

        .org 0x200
        .word 0x1f
        .long 0xffff0210
        .org 0x210              // marked as accessed: a ROM cannot be written
        .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
        .org 0xfff0
        .code16
        .byte 0xe9, 0x0d, 0x00  // jmp to the start, in the segment of the reset vector
        .org 0x10000
