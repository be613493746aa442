//! The highest IRQL of each call, as its page has it.

use super::*;
use crate::conformance::conforms;

/// One test for each call: one level higher, the machine stops. The level is checked before any parameter is looked at.
macro_rules! levels {
    ($($test:ident: $export:ident, $highest:literal, $page:literal, $rule:literal;)*) => {$(
        #[test]
        fn $test() {
            conforms!($page, $rule);
            let setup = Setup::new();
            let call = ddi!($export: fn());
            let outcome = setup.call(stringify!($export), || {
                Thread::current().set_irql($highest + 1);
                call();
            });
            assert_eq!(outcome, Err(Rule::IrqlTooHigh));
        }
    )*};
}

levels! {
    flt_attach_volume: FltAttachVolume, 0, "fltkernel/nf-fltkernel-fltattachvolume.md", "FltAttachVolume is called at PASSIVE_LEVEL.";
    flt_attach_volume_at_altitude: FltAttachVolumeAtAltitude, 0, "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md", "FltAttachVolumeAtAltitude is called at PASSIVE_LEVEL.";
    flt_detach_volume: FltDetachVolume, 1, "fltkernel/nf-fltkernel-fltdetachvolume.md", "FltDetachVolume is called at IRQL <= APC_LEVEL.";
    flt_get_filter_information: FltGetFilterInformation, 1, "fltkernel/nf-fltkernel-fltgetfilterinformation.md", "FltGetFilterInformation is called at IRQL <= APC_LEVEL.";
    flt_get_instance_information: FltGetInstanceInformation, 1, "fltkernel/nf-fltkernel-fltgetinstanceinformation.md", "FltGetInstanceInformation is called at IRQL <= APC_LEVEL.";
    flt_get_volume_information: FltGetVolumeInformation, 1, "fltkernel/nf-fltkernel-fltgetvolumeinformation.md", "FltGetVolumeInformation is called at IRQL <= APC_LEVEL.";
    flt_enumerate_filter_information: FltEnumerateFilterInformation, 1, "fltkernel/nf-fltkernel-fltenumeratefilterinformation.md", "FltEnumerateFilterInformation is called at IRQL <= APC_LEVEL.";
    flt_enumerate_volume_information: FltEnumerateVolumeInformation, 1, "fltkernel/nf-fltkernel-fltenumeratevolumeinformation.md", "FltEnumerateVolumeInformation is called at IRQL <= APC_LEVEL.";
    flt_enumerate_instance_information_by_filter: FltEnumerateInstanceInformationByFilter, 1, "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyfilter.md", "FltEnumerateInstanceInformationByFilter is called at IRQL <= APC_LEVEL.";
    flt_enumerate_instance_information_by_volume: FltEnumerateInstanceInformationByVolume, 1, "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyvolume.md", "FltEnumerateInstanceInformationByVolume is called at IRQL <= APC_LEVEL.";
    flt_enumerate_instance_information_by_volume_name: FltEnumerateInstanceInformationByVolumeName, 1, "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyvolumename.md", "FltEnumerateInstanceInformationByVolumeName is called at IRQL <= APC_LEVEL.";
    flt_compare_instance_altitudes: FltCompareInstanceAltitudes, 2, "fltkernel/nf-fltkernel-fltcompareinstancealtitudes.md", "FltCompareInstanceAltitudes is called at IRQL <= DISPATCH_LEVEL.";
    flt_get_top_instance: FltGetTopInstance, 1, "fltkernel/nf-fltkernel-fltgettopinstance.md", "FltGetTopInstance is called at IRQL <= APC_LEVEL.";
    flt_get_bottom_instance: FltGetBottomInstance, 1, "fltkernel/nf-fltkernel-fltgetbottominstance.md", "FltGetBottomInstance is called at IRQL <= APC_LEVEL.";
    flt_get_upper_instance: FltGetUpperInstance, 1, "fltkernel/nf-fltkernel-fltgetupperinstance.md", "FltGetUpperInstance is called at IRQL <= APC_LEVEL.";
    flt_get_lower_instance: FltGetLowerInstance, 1, "fltkernel/nf-fltkernel-fltgetlowerinstance.md", "FltGetLowerInstance is called at IRQL <= APC_LEVEL.";
    flt_load_filter: FltLoadFilter, 0, "fltkernel/nf-fltkernel-fltloadfilter.md", "FltLoadFilter is called at PASSIVE_LEVEL.";
    flt_unload_filter: FltUnloadFilter, 0, "fltkernel/nf-fltkernel-fltunloadfilter.md", "FltUnloadFilter is called at PASSIVE_LEVEL.";
    flt_get_filter_from_name: FltGetFilterFromName, 1, "fltkernel/nf-fltkernel-fltgetfilterfromname.md", "FltGetFilterFromName is called at IRQL <= APC_LEVEL.";
    flt_enumerate_filters: FltEnumerateFilters, 1, "fltkernel/nf-fltkernel-fltenumeratefilters.md", "FltEnumerateFilters is called at IRQL <= APC_LEVEL.";
    flt_get_routine_address: FltGetRoutineAddress, 2, "fltkernel/nf-fltkernel-fltgetroutineaddress.md", "FltGetRoutineAddress is called at IRQL <= DISPATCH_LEVEL.";
    flt_get_volume_properties: FltGetVolumeProperties, 1, "fltkernel/nf-fltkernel-fltgetvolumeproperties.md", "FltGetVolumeProperties is called at IRQL <= APC_LEVEL.";
    flt_is_volume_writable: FltIsVolumeWritable, 0, "fltkernel/nf-fltkernel-fltisvolumewritable.md", "FltIsVolumeWritable is called at PASSIVE_LEVEL.";
    flt_get_file_system_type: FltGetFileSystemType, 1, "fltkernel/nf-fltkernel-fltgetfilesystemtype.md", "FltGetFileSystemType is called at IRQL <= APC_LEVEL.";
    flt_get_device_object: FltGetDeviceObject, 2, "fltkernel/nf-fltkernel-fltgetdeviceobject.md", "FltGetDeviceObject is called at IRQL <= DISPATCH_LEVEL.";
    flt_get_disk_device_object: FltGetDiskDeviceObject, 2, "fltkernel/nf-fltkernel-fltgetdiskdeviceobject.md", "FltGetDiskDeviceObject is called at IRQL <= DISPATCH_LEVEL.";
    flt_get_volume_from_device_object: FltGetVolumeFromDeviceObject, 1, "fltkernel/nf-fltkernel-fltgetvolumefromdeviceobject.md", "FltGetVolumeFromDeviceObject is called at IRQL <= APC_LEVEL.";
    flt_get_volume_from_file_object: FltGetVolumeFromFileObject, 1, "fltkernel/nf-fltkernel-fltgetvolumefromfileobject.md", "FltGetVolumeFromFileObject is called at IRQL <= APC_LEVEL.";
    flt_get_volume_from_instance: FltGetVolumeFromInstance, 1, "fltkernel/nf-fltkernel-fltgetvolumefrominstance.md", "FltGetVolumeFromInstance is called at IRQL <= APC_LEVEL.";
    flt_get_volume_name: FltGetVolumeName, 1, "fltkernel/nf-fltkernel-fltgetvolumename.md", "FltGetVolumeName is called at IRQL <= APC_LEVEL.";
    flt_get_volume_guid_name: FltGetVolumeGuidName, 0, "fltkernel/nf-fltkernel-fltgetvolumeguidname.md", "FltGetVolumeGuidName is called at PASSIVE_LEVEL.";
    flt_enumerate_volumes: FltEnumerateVolumes, 1, "fltkernel/nf-fltkernel-fltenumeratevolumes.md", "FltEnumerateVolumes is called at IRQL <= APC_LEVEL.";
    flt_enumerate_instances: FltEnumerateInstances, 1, "fltkernel/nf-fltkernel-fltenumerateinstances.md", "FltEnumerateInstances is called at IRQL <= APC_LEVEL.";
    flt_get_volume_instance_from_name: FltGetVolumeInstanceFromName, 1, "fltkernel/nf-fltkernel-fltgetvolumeinstancefromname.md", "FltGetVolumeInstanceFromName is called at IRQL <= APC_LEVEL.";
    flt_get_filter_from_instance: FltGetFilterFromInstance, 1, "fltkernel/nf-fltkernel-fltgetfilterfrominstance.md", "FltGetFilterFromInstance is called at IRQL <= APC_LEVEL.";
    flt_object_reference: FltObjectReference, 2, "fltkernel/nf-fltkernel-fltobjectreference.md", "FltObjectReference is called at IRQL <= DISPATCH_LEVEL.";
    flt_object_dereference: FltObjectDereference, 2, "fltkernel/nf-fltkernel-fltobjectdereference.md", "FltObjectDereference is called at IRQL <= DISPATCH_LEVEL.";
    flt_send_message: FltSendMessage, 1, "fltkernel/nf-fltkernel-fltsendmessage.md", "FltSendMessage is called at IRQL <= APC_LEVEL.";
    flt_build_default_security_descriptor: FltBuildDefaultSecurityDescriptor, 1, "fltkernel/nf-fltkernel-fltbuilddefaultsecuritydescriptor.md", "FltBuildDefaultSecurityDescriptor is called at IRQL <= APC_LEVEL.";
    flt_free_security_descriptor: FltFreeSecurityDescriptor, 1, "fltkernel/nf-fltkernel-fltfreesecuritydescriptor.md", "FltFreeSecurityDescriptor is called at IRQL <= APC_LEVEL.";
    flt_register_filter: FltRegisterFilter, 1, "fltkernel/nf-fltkernel-fltregisterfilter.md", "FltRegisterFilter is called at IRQL <= APC_LEVEL.";
    flt_start_filtering: FltStartFiltering, 1, "fltkernel/nf-fltkernel-fltstartfiltering.md", "FltStartFiltering is called at IRQL <= APC_LEVEL.";
    flt_unregister_filter: FltUnregisterFilter, 1, "fltkernel/nf-fltkernel-fltunregisterfilter.md", "FltUnregisterFilter is called at IRQL <= APC_LEVEL.";
    flt_allocate_generic_work_item: FltAllocateGenericWorkItem, 2, "fltkernel/nf-fltkernel-fltallocategenericworkitem.md", "FltAllocateGenericWorkItem is called at IRQL <= DISPATCH_LEVEL.";
    flt_queue_generic_work_item: FltQueueGenericWorkItem, 2, "fltkernel/nf-fltkernel-fltqueuegenericworkitem.md", "FltQueueGenericWorkItem is called at IRQL <= DISPATCH_LEVEL.";
    flt_free_generic_work_item: FltFreeGenericWorkItem, 2, "fltkernel/nf-fltkernel-fltfreegenericworkitem.md", "FltFreeGenericWorkItem is called at IRQL <= DISPATCH_LEVEL.";
    flt_get_destination_file_name_information: FltGetDestinationFileNameInformation, 1, "fltkernel/nf-fltkernel-fltgetdestinationfilenameinformation.md", "FltGetDestinationFileNameInformation is called at IRQL <= APC_LEVEL.";
    flt_get_tunneled_name: FltGetTunneledName, 1, "fltkernel/nf-fltkernel-fltgettunneledname.md", "FltGetTunneledName is called at IRQL <= APC_LEVEL.";
    flt_reference_file_name_information: FltReferenceFileNameInformation, 1, "fltkernel/nf-fltkernel-fltreferencefilenameinformation.md", "FltReferenceFileNameInformation is called at IRQL <= APC_LEVEL.";
    flt_release_file_name_information: FltReleaseFileNameInformation, 1, "fltkernel/nf-fltkernel-fltreleasefilenameinformation.md", "FltReleaseFileNameInformation is called at IRQL <= APC_LEVEL.";
    flt_parse_file_name_information: FltParseFileNameInformation, 1, "fltkernel/nf-fltkernel-fltparsefilenameinformation.md", "FltParseFileNameInformation is called at IRQL <= APC_LEVEL.";
    flt_parse_file_name: FltParseFileName, 1, "fltkernel/nf-fltkernel-fltparsefilename.md", "FltParseFileName is called at IRQL <= APC_LEVEL.";
    flt_check_and_grow_name_control: FltCheckAndGrowNameControl, 1, "fltkernel/nf-fltkernel-fltcheckandgrownamecontrol.md", "FltCheckAndGrowNameControl is called at IRQL <= APC_LEVEL.";
    flt_purge_file_name_information_cache: FltPurgeFileNameInformationCache, 1, "fltkernel/nf-fltkernel-fltpurgefilenameinformationcache.md", "FltPurgeFileNameInformationCache is called at IRQL <= APC_LEVEL.";
    flt_get_file_name_information: FltGetFileNameInformation, 1, "fltkernel/nf-fltkernel-fltgetfilenameinformation.md", "FltGetFileNameInformation is called at IRQL <= APC_LEVEL.";
    flt_get_file_name_information_unsafe: FltGetFileNameInformationUnsafe, 1, "fltkernel/nf-fltkernel-fltgetfilenameinformationunsafe.md", "FltGetFileNameInformationUnsafe is called at IRQL <= APC_LEVEL.";
    flt_reference_context: FltReferenceContext, 2, "fltkernel/nf-fltkernel-fltreferencecontext.md", "FltReferenceContext is called at IRQL <= DISPATCH_LEVEL.";
    flt_set_volume_context: FltSetVolumeContext, 1, "fltkernel/nf-fltkernel-fltsetvolumecontext.md", "FltSetVolumeContext is called at IRQL <= APC_LEVEL.";
    flt_get_volume_context: FltGetVolumeContext, 1, "fltkernel/nf-fltkernel-fltgetvolumecontext.md", "FltGetVolumeContext is called at IRQL <= APC_LEVEL.";
    flt_delete_volume_context: FltDeleteVolumeContext, 1, "fltkernel/nf-fltkernel-fltdeletevolumecontext.md", "FltDeleteVolumeContext is called at IRQL <= APC_LEVEL.";
    flt_set_instance_context: FltSetInstanceContext, 1, "fltkernel/nf-fltkernel-fltsetinstancecontext.md", "FltSetInstanceContext is called at IRQL <= APC_LEVEL.";
    flt_get_instance_context: FltGetInstanceContext, 1, "fltkernel/nf-fltkernel-fltgetinstancecontext.md", "FltGetInstanceContext is called at IRQL <= APC_LEVEL.";
    flt_delete_instance_context: FltDeleteInstanceContext, 1, "fltkernel/nf-fltkernel-fltdeleteinstancecontext.md", "FltDeleteInstanceContext is called at IRQL <= APC_LEVEL.";
    flt_set_file_context: FltSetFileContext, 1, "fltkernel/nf-fltkernel-fltsetfilecontext.md", "FltSetFileContext is called at IRQL <= APC_LEVEL.";
    flt_get_file_context: FltGetFileContext, 1, "fltkernel/nf-fltkernel-fltgetfilecontext.md", "FltGetFileContext is called at IRQL <= APC_LEVEL.";
    flt_delete_file_context: FltDeleteFileContext, 1, "fltkernel/nf-fltkernel-fltdeletefilecontext.md", "FltDeleteFileContext is called at IRQL <= APC_LEVEL.";
    flt_set_stream_context: FltSetStreamContext, 1, "fltkernel/nf-fltkernel-fltsetstreamcontext.md", "FltSetStreamContext is called at IRQL <= APC_LEVEL.";
    flt_get_stream_context: FltGetStreamContext, 1, "fltkernel/nf-fltkernel-fltgetstreamcontext.md", "FltGetStreamContext is called at IRQL <= APC_LEVEL.";
    flt_delete_stream_context: FltDeleteStreamContext, 1, "fltkernel/nf-fltkernel-fltdeletestreamcontext.md", "FltDeleteStreamContext is called at IRQL <= APC_LEVEL.";
    flt_set_stream_handle_context: FltSetStreamHandleContext, 1, "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md", "FltSetStreamHandleContext is called at IRQL <= APC_LEVEL.";
    flt_get_stream_handle_context: FltGetStreamHandleContext, 1, "fltkernel/nf-fltkernel-fltgetstreamhandlecontext.md", "FltGetStreamHandleContext is called at IRQL <= APC_LEVEL.";
    flt_delete_stream_handle_context: FltDeleteStreamHandleContext, 1, "fltkernel/nf-fltkernel-fltdeletestreamhandlecontext.md", "FltDeleteStreamHandleContext is called at IRQL <= APC_LEVEL.";
    flt_set_transaction_context: FltSetTransactionContext, 1, "fltkernel/nf-fltkernel-fltsettransactioncontext.md", "FltSetTransactionContext is called at IRQL <= APC_LEVEL.";
    flt_get_transaction_context: FltGetTransactionContext, 1, "fltkernel/nf-fltkernel-fltgettransactioncontext.md", "FltGetTransactionContext is called at IRQL <= APC_LEVEL.";
    flt_delete_transaction_context: FltDeleteTransactionContext, 1, "fltkernel/nf-fltkernel-fltdeletetransactioncontext.md", "FltDeleteTransactionContext is called at IRQL <= APC_LEVEL.";
    flt_get_section_context: FltGetSectionContext, 1, "fltkernel/nf-fltkernel-fltgetsectioncontext.md", "FltGetSectionContext is called at IRQL <= APC_LEVEL.";
    flt_delete_context: FltDeleteContext, 1, "fltkernel/nf-fltkernel-fltdeletecontext.md", "FltDeleteContext is called at IRQL <= APC_LEVEL.";
    flt_get_contexts: FltGetContexts, 1, "fltkernel/nf-fltkernel-fltgetcontexts.md", "FltGetContexts is called at IRQL <= APC_LEVEL.";
    flt_get_contexts_ex: FltGetContextsEx, 1, "fltkernel/nf-fltkernel-fltgetcontextsex.md", "FltGetContextsEx is called at IRQL <= APC_LEVEL.";
    flt_supports_file_contexts: FltSupportsFileContexts, 1, "fltkernel/nf-fltkernel-fltsupportsfilecontexts.md", "FltSupportsFileContexts is called at IRQL <= APC_LEVEL.";
    flt_supports_file_contexts_ex: FltSupportsFileContextsEx, 1, "fltkernel/nf-fltkernel-fltsupportsfilecontextsex.md", "FltSupportsFileContextsEx is called at IRQL <= APC_LEVEL.";
    flt_supports_stream_contexts: FltSupportsStreamContexts, 1, "fltkernel/nf-fltkernel-fltsupportsstreamcontexts.md", "FltSupportsStreamContexts is called at IRQL <= APC_LEVEL.";
    flt_supports_stream_handle_contexts: FltSupportsStreamHandleContexts, 1, "fltkernel/nf-fltkernel-fltsupportsstreamhandlecontexts.md", "FltSupportsStreamHandleContexts is called at IRQL <= APC_LEVEL.";
}
