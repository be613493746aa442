/*
 * Handles and object references: what is opened is closed, what is referenced is dereferenced, each exactly once.
 *
 * The correct driver opens files, a registry key and a process, gets at a file object through its handle, and gives everything
 * back.
 */
#include "wdm_mutant.h"

static UNICODE_STRING ParametersPath = RTL_CONSTANT_STRING(L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\Mutant");
static UNICODE_STRING FilePath = RTL_CONSTANT_STRING(L"\\??\\C:\\objects.txt");
static volatile LONG ReadOnly;

static VOID UseObject(void)
{
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK ended;
    PFILE_OBJECT object;
    HANDLE handle;

    InitializeObjectAttributes(&attributes, &FilePath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (!NT_SUCCESS(ZwCreateFile(&handle, FILE_GENERIC_READ, &attributes, &ended, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ,
                                 FILE_OPEN_IF, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))) {
        return;
    }
    if (NT_SUCCESS(ObReferenceObjectByHandle(handle, FILE_READ_DATA, *IoFileObjectType, KernelMode, (PVOID *)&object, NULL))) {
        ReadOnly += object->ReadAccess && !object->WriteAccess;
#ifndef MUTANT_MISSING_DEREFERENCE
        ObDereferenceObject(object);
#endif
#ifdef MUTANT_DEREFERENCED_TWICE
        ObDereferenceObject(object);
#endif
    }
#ifndef MUTANT_HANDLE_LEAK
    ZwClose(handle);
#endif
#ifdef MUTANT_REFERENCED_AFTER_THE_CLOSE
    if (NT_SUCCESS(ObReferenceObjectByHandle(handle, 0, *IoFileObjectType, KernelMode, (PVOID *)&object, NULL))) {
        ObDereferenceObject(object);
    }
#elif defined(MUTANT_CLOSED_TWICE)
    ZwClose(handle);
#elif defined(MUTANT_OBJECT_USED_AFTER_THE_LAST_REFERENCE)
    ReadOnly += object->ReadAccess;
#endif
}

static VOID UseKey(void)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE key;

    InitializeObjectAttributes(&attributes, &ParametersPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes))) {
#ifndef MUTANT_REGISTRY_KEY_LEFT_OPEN
        ZwClose(key);
#endif
    }
}

static VOID UseFile(void)
{
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK ended;
    HANDLE file;

    InitializeObjectAttributes(&attributes, &FilePath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateFile(&file, FILE_GENERIC_WRITE, &attributes, &ended, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ,
                                FILE_OVERWRITE_IF, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))) {
#ifndef MUTANT_FILE_LEFT_OPEN
        ZwClose(file);
#endif
    }
#ifdef MUTANT_CLOSE_OF_NO_HANDLE
    ZwClose((HANDLE)(ULONG_PTR)0xFFFFFFFF80001234);
#endif
}

static VOID UseProcess(void)
{
    PEPROCESS process;

    if (NT_SUCCESS(PsLookupProcessByProcessId(PsGetCurrentProcessId(), &process))) {
#ifndef MUTANT_PROCESS_LOOKED_UP_AND_KEPT
        ObDereferenceObject(process);
#endif
    }
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    UseObject();
    UseKey();
    UseFile();
    UseProcess();
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}
